"""Counts its arguments."""

import sys


def main():
    print(len(sys.argv) - 1)
