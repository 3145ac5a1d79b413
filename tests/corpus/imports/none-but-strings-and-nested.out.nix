{ ... }:
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ]; # nixprov: added by "nixprov up", removed by "nixprov down"
  text = "imports = [ ./a.nix ];";
  indented = ''
    imports = [
      ./b.nix
    ];
  '';
  containers.x.config = { ... }: {
    imports = [ ./inner.nix ];
  };
  home-manager.users.me = { imports = [ ./home.nix ]; };
}
