"""Python read as text: where modules lie, what names mean, what calls take. Nothing is imported or executed."""
