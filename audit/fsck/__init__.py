"""The parts of the full check `audit.verify.verify_log`, a module for each thing that is compared.

All of them hold as much memory for a large log as for a small one: findings are kept up to a limit, trees as their
frontiers, sets of indexes as bits, and what a database can compare by itself it does.
"""
