-- What ties the file to its records in the shared journal: a name that no other file has, and how many writes it took.
ALTER TABLE standing ADD COLUMN file BLOB;
ALTER TABLE standing ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;
UPDATE standing SET file = randomblob(16);
