"""Attachments: the images and documents that messages carry beside their text; checked, stored and deleted."""
