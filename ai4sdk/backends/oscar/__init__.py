"""OSCAR: trained models as services of a serverless cluster, or of a stand-in for one on this machine."""
