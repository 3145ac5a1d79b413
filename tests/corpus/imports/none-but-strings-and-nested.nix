{ ... }:
{
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
