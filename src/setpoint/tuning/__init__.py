"""Finding the temperature: from the teacher alone, and by training students."""
