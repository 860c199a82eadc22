"""What is stored: tables, migrations, the TaskFlow backend, journal, ledger, and the repositories."""
