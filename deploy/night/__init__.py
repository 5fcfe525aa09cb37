"""The night's steps, called alike by the DAG and by the command line."""
