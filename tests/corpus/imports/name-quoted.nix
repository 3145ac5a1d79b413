{ ... }:
{
  "imports" = [
    ./a.nix
  ];
}
