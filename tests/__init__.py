"""The tests, in folders by subject; ops/ has a test_<stem>.py for each op."""
