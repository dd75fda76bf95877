"""Where guesses come from: one way of guessing per file, all behind `protocol.Drafter`."""
