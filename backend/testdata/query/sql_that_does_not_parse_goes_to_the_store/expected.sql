SELEC * FROM logs
