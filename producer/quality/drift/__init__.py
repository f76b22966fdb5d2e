"""The differences of two outputs: scores, places, pairs, queries; and gates that limit them."""
