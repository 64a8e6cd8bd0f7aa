"""The demo: a static and a dynamic network, trained, exported, measured and compared on the user's own machine."""
