{ lib, ... }:
{
  imports = let dir = ./modules; in map (n: dir + "/${n}") [ "a" ];
}
