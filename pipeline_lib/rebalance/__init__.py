"""Who is to be edited, and which rates hold afterwards."""
