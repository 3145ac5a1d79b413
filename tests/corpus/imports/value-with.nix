{ ... }:
{
  imports = with { x = ./x.nix; }; [ x ./a.nix ];
}
