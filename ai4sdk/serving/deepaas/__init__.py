"""DEEPaaS V2: modules written for it are served as they are, and packages of ours speak its protocol, too."""
