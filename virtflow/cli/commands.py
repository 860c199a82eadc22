"""Which class is which command, without importing any of them.

Looking commands up through entry points costs more than most commands take, so the table is written down. Only for a
command that is not in it are the entry points of other packages asked (group ``virtflow.cli``; ``_`` is a space).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cliff.commandmanager import CommandManager

from virtflow.cli.usage import UsageError

PLUGINS = "virtflow.cli"

TABLE = {
    "spawn": "virtflow.cli.spawn:Spawn",
    "delete": "virtflow.cli.delete:Delete",
    "resize": "virtflow.cli.resize:Resize",
    "migrate": "virtflow.cli.resize:Migrate",
    "evacuate": "virtflow.cli.leaving:Evacuate",
    "live-migrate": "virtflow.cli.live_migrate:LiveMigrate",
    "resize-confirm": "virtflow.cli.resize:ResizeConfirm",
    "resize-revert": "virtflow.cli.resize:ResizeRevert",
    "instance list": "virtflow.cli.instance:ListInstances",
    "instance show": "virtflow.cli.instance:ShowInstance",
    "instance console": "virtflow.cli.console:Console",
    "operation list": "virtflow.cli.operation:ListOperations",
    "operation show": "virtflow.cli.operation:ShowOperation",
    "operation watch": "virtflow.cli.operation_verbs:Watch",
    "operation resume": "virtflow.cli.operation_verbs:Resume",
    "operation cancel": "virtflow.cli.operation_verbs:Cancel",
    "operation undo": "virtflow.cli.operation_verbs:Undo",
    "operation retry-revert": "virtflow.cli.operation_verbs:RetryRevert",
    "image list": "virtflow.cli.image:ListImages",
    "image show": "virtflow.cli.image:ShowImage",
    "image add": "virtflow.cli.image:AddImage",
    "image create": "virtflow.cli.image:CreateImage",
    "image remove": "virtflow.cli.image:RemoveImage",
    "image prune": "virtflow.cli.image:PruneImages",
    "flavor list": "virtflow.cli.flavor:ListFlavors",
    "flavor show": "virtflow.cli.flavor:ShowFlavor",
    "flavor create": "virtflow.cli.flavor:CreateFlavor",
    "flavor delete": "virtflow.cli.flavor:DeleteFlavor",
    "network list": "virtflow.cli.network:ListNetworks",
    "network show": "virtflow.cli.network:ShowNetwork",
    "network create": "virtflow.cli.network:CreateNetwork",
    "network delete": "virtflow.cli.network:DeleteNetwork",
    "server-group list": "virtflow.cli.server_group:ListServerGroups",
    "server-group show": "virtflow.cli.server_group:ShowServerGroup",
    "server-group create": "virtflow.cli.server_group:CreateServerGroup",
    "server-group delete": "virtflow.cli.server_group:DeleteServerGroup",
    "host list": "virtflow.cli.host:ListHosts",
    "host show": "virtflow.cli.host:ShowHost",
    "host enable": "virtflow.cli.host:EnableHost",
    "host disable": "virtflow.cli.host:DisableHost",
    "host drain": "virtflow.cli.leaving:DrainHost",
    "host set": "virtflow.cli.host:SetHost",
    "host fence": "virtflow.cli.host:FenceHost",
    "job list": "virtflow.cli.job:ListJobs",
    "job show": "virtflow.cli.job:ShowJob",
    "job release": "virtflow.cli.job:ReleaseJob",
    "job park": "virtflow.cli.job:ParkJob",
    "job unpark": "virtflow.cli.job:UnparkJob",
    "volume list": "virtflow.cli.volume:ListVolumes",
    "volume show": "virtflow.cli.volume:ShowVolume",
    "volume create": "virtflow.cli.volume:CreateVolume",
    "volume delete": "virtflow.cli.volume:DeleteVolume",
    "volume attach": "virtflow.cli.volume:AttachVolume",
    "volume detach": "virtflow.cli.volume:DetachVolume",
    "volume extend": "virtflow.cli.volume:ExtendVolume",
    "volume snapshot list": "virtflow.cli.volume_snapshot:ListSnapshots",
    "volume snapshot create": "virtflow.cli.volume_snapshot:CreateSnapshot",
    "volume snapshot delete": "virtflow.cli.volume_snapshot:DeleteSnapshot",
    "volume backend list": "virtflow.cli.volume_backend:ListBackends",
    "volume backend show": "virtflow.cli.volume_backend:ShowBackend",
    "volume type list": "virtflow.cli.volume_backend:ListTypes",
    "volume type create": "virtflow.cli.volume_backend:CreateType",
    "event vif-plugged": "virtflow.cli.event:VifPlugged",
    "quota list": "virtflow.cli.quota:ListQuotas",
    "quota show": "virtflow.cli.quota:ShowQuota",
    "quota create": "virtflow.cli.quota:CreateQuota",
    "quota delete": "virtflow.cli.quota:DeleteQuota",
    "worker": "virtflow.cli.worker:Worker",
    "trash list": "virtflow.cli.trash:ListTrash",
    "trash purge": "virtflow.cli.trash:PurgeTrash",
    "replay html": "virtflow.cli.replay_html:Html",
    "replay show": "virtflow.cli.replay:Show",
    "replay events": "virtflow.cli.replay_events:Events",
    "replay timeline": "virtflow.cli.replay:Timeline",
    "replay graph": "virtflow.cli.replay:Graph",
    "replay task": "virtflow.cli.replay:Task",
    "replay why": "virtflow.cli.replay:Why",
    "replay left": "virtflow.cli.replay:Left",
    "replay export": "virtflow.cli.replay_files:Export",
    "replay import": "virtflow.cli.replay_files:Import",
    "replay verify": "virtflow.cli.replay_files:Verify",
    "replay play": "virtflow.cli.replay_play:Play",
    "replay check": "virtflow.cli.replay_compare:Check",
    "replay diff": "virtflow.cli.replay_compare:Diff",
    "replay stats": "virtflow.cli.replay_compare:Stats",
    "replay run": "virtflow.cli.replay_live:Run",
    "replay fork": "virtflow.cli.replay_live:Fork",
    "replay undo-preview": "virtflow.cli.replay_live:UndoPreview",
    "audit": "virtflow.cli.audit:Audit",
    "db upgrade": "virtflow.cli.database:Upgrade",
    "db check": "virtflow.cli.database:Check",
    "doctor": "virtflow.cli.doctor:Doctor",
    "demo": "virtflow.cli.demo:Demo",
    "config show": "virtflow.cli.configuration:ShowConfig",
    "config sample": "virtflow.cli.configuration:Sample",
    "completion": "virtflow.cli.completion:Completion",
    "help": "virtflow.cli.help:Help",
}


@dataclass(frozen=True)
class LazyCommand:
    """What cliff takes for an entry point."""

    name: str
    value: str

    def load(self) -> Any:
        from importlib import import_module

        module, _, attribute = self.value.partition(":")
        return getattr(import_module(module), attribute)


class CommandTable(CommandManager):
    """cliff's command manager over the table. A name is never guessed from its beginning."""

    def __init__(self) -> None:
        super().__init__(namespace=None)
        self.commands: dict[str, Any] = {name: LazyCommand(name, value) for name, value in TABLE.items()}

    def add_command(self, name: str, command_class: Any) -> None:
        """cliff adds its own ``help`` and ``complete``; virtflow has better ones in the table."""

    def find_command(self, argv: list[str]) -> tuple[Any, str, list[str]]:
        """The class, its name, and the arguments that are left. UsageError for an unknown command."""
        words = argv[: self._get_last_possible_command_index(argv)]
        found = self._find(words) or self._find_plugin(words)
        if found is None:
            raise UsageError(reason=self._unknown(words or argv))
        return self.commands[found].load(), found, argv[len(found.split()) :]

    def group(self, words: list[str]) -> list[str]:
        """The commands whose names begin with these words."""
        return sorted(name for name in self.commands if name.split()[: len(words)] == words)

    def _find(self, words: list[str]) -> str | None:
        candidates = (" ".join(words[:count]) for count in (3, 2, 1))
        return next((name for name in candidates if name in self.commands), None)

    def _find_plugin(self, words: list[str]) -> str | None:
        from importlib.metadata import entry_points

        for point in entry_points(group=PLUGINS):
            self.commands.setdefault(point.name.replace("_", " "), point)
        return self._find(words)

    def _unknown(self, words: list[str]) -> str:
        text = " ".join(words)[:80]
        if words and (group := self.group(words[:1])):
            return f"{text!r} is not a command; there are: {', '.join(group)}"
        from difflib import get_close_matches

        firsts = sorted({name.split()[0] for name in self.commands})
        close = get_close_matches(words[0][:80], firsts, 1) if words else []
        hint = f"did you mean {close[0]!r}?" if close else "see `virtflow --help`"
        return f"{text!r} is not a command; {hint}"
