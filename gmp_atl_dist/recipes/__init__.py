"""What each trained stage learns: model, loss, and what it leaves behind."""
