"""Learning: photos in class folders become a bundle. Training uses its modules for photos, measures and reports too."""
