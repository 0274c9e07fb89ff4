"""The migrations of this build. A new one is added at the end; from version 2 on they only add."""

from godoty_service.migrations import version_1, version_2
from godoty_service.migrations.schema import Migration

MIGRATIONS: tuple[Migration, ...] = (version_1.MIGRATION, version_2.MIGRATION)
