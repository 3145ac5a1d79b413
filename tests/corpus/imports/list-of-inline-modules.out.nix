{ ... }:
{
  imports = [
    {
      imports = [ ];
      a = 1;
    }
    (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
  ];
  nested.imports = [ ./never.nix ];
}
