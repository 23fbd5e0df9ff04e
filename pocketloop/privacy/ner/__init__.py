"""Our own small spaCy model of names and addresses, how it is made, and the engines that may stand in its place."""
