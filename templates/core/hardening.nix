# The restrictions of our own programs: no rights, no devices, no memory that is written and executed, a read-only
# system. They run no builds; the restrictions of builds are in daemon.nix.
{
  CapabilityBoundingSet = "";
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  NoNewPrivileges = true;
  PrivateDevices = true;
  PrivateTmp = true;
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHome = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  ProtectSystem = "strict";
  RemoveIPC = true;
  RestrictNamespaces = true;
  RestrictRealtime = true;
  RestrictSUIDSGID = true;
  Slice = "nixprov.slice";
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  UMask = "0077";
}
