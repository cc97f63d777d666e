"""Results for people: tables in the terminal, and the results of a sweep as one table."""
