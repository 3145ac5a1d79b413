{ config, pkgs, ... }:

{
  networking.hostName = "a";
}
