"""Users, organizations and what a token may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


Role = Literal["read", "write"]


@dataclass(frozen=True)
class Account:
    """What a token stands for.

    Attributes:
        user: Name of the user, who owns the namespace of that name.
        role: The most that the token may do anywhere.
        organizations: Role of the user in each organization.
    """

    user: str
    role: Role
    organizations: Mapping[str, Role] = field(default_factory=dict)

    def rights(self, namespace: str) -> Role | None:
        """What the token may do in a namespace; None: no more than a stranger."""
        granted = "write" if namespace == self.user else self.organizations.get(namespace)
        return self.role if granted == "write" else granted


TOKENS: Mapping[str, Account] = {
    "hf_alice_write": Account("alice", "write", {"lab": "write"}),
    "hf_alice_read": Account("alice", "read", {"lab": "read"}),
    "hf_bob_write": Account("bob", "write"),
}
