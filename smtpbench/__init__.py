"""smtpbench: an SMTP load tester and protocol fuzzer."""

__version__ = "0.1.0"
