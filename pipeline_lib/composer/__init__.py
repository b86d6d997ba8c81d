"""The composer: edits of single images in a local browser page, with the networks of a config."""
