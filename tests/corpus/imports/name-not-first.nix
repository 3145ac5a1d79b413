{ ... }:
{
  a.imports = [ ./not-this.nix ];
  "b" = { imports = [ ./nor-this.nix ]; };

  imports = [
    ./a.nix
  ];
}
