"""What tests share: a client of the API, the operator as a process, and counting of writes."""
