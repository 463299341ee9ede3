"""What folds are planned from beside groups: stratified groups, lists of others, and their checks."""
