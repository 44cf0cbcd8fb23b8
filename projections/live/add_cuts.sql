-- Their new ones come. `cuts`: as the table.
INSERT INTO stock_cuts BY NAME SELECT * FROM cuts
