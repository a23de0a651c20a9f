"""What runs sections, keeps figures and writes pages."""
