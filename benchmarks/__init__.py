"""What is measured: one module per subject, all run by ``make bench``. Imported by nothing that is served."""
