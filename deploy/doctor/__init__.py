"""``nightingale doctor``: does this site have all that a night needs, and what to do where it has not.

The command's module imports the checks only when it runs, since they bring in every room.
"""
