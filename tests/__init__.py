"""The tests: one test_<stem>.py per op and per module."""
