-- Or until another instant. `awaiting`: as the table.
INSERT INTO awaited BY NAME SELECT * FROM awaiting
