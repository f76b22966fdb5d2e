"""What moved between two outputs: scores, places, pairs, queries; and gates on how much may."""
