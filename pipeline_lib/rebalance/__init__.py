"""Groups and edit plans: tables and arithmetic alone."""
