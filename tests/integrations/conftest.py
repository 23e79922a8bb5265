"""Tests of integrations: with real libraries, in real applications. A test module names the library that it needs."""
