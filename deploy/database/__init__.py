"""The site's database: its tables, and roles with the least rights that each use needs."""
