"""Groups, edit plans and corrected rates."""
