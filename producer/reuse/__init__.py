"""Take scores from an earlier output instead of computing them again."""
