"""Commands that compare zones and copy items between them."""
