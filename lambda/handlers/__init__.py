"""The ways in, one file each (parse, call one function, answer), and what they share: requests and problems."""
