"""Tables, figures and HTML pages of results. Trains and evaluates nothing."""
