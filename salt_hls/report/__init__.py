"""Reports: report.json, vendor report readers, trigger budgets, the HTML page."""
