"""What videos there are and what they show, from folders and every kind of list; opens no video."""
