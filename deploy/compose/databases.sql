-- Run once by the PostgreSQL image: Dagster's storage beside the ledger's database.
create database dagster;
